"""Labs: sets of hosts, the fabric between them and the peer on it."""
