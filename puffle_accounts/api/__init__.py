"""The HTTP interface: one route, its authentication, the shape of its errors."""
