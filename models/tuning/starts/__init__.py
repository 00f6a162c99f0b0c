"""Where adapters of PEFT's begin, where that is not where PEFT itself lets them."""
