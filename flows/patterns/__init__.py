"""Ways to fan out, one file each, made to be copied. docs/fan-out.md says what each one is for."""
