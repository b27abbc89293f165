from flows import alone
