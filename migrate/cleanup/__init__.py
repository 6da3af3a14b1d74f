"""What a dead controller left: found, and put back."""
