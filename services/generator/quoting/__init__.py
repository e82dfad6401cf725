"""How the extractive generator makes an answer of other people's sentences: pure functions, no I/O."""
