"""Who may use which hosts."""
