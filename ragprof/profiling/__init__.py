"""Sessions: an engine looks at a program, in this process or from outside, and gives a Profile."""
