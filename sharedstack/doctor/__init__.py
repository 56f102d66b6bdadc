"""`sharedstack doctor`: what the wire path needs of this host and its interfaces, what is there, and what to do."""
