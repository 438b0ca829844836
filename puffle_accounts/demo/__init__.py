"""The whole thing on loopback; nothing here is imported before somebody asks for it."""
