SUFFIX = "nightly"
