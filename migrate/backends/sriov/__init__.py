"""Virtual functions, for the modes that give one to the guest."""
