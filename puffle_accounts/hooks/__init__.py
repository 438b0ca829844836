"""What a plugin implements, and how its implementations are found, verified and isolated."""
