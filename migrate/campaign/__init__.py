"""Many attempts: sessions, nights, priorities."""
