"""May an `accounts` table that others made be adopted, and does it still do what it must?"""
