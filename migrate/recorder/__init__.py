"""What listens and measures while a guest is moved."""
