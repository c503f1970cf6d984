"""Core, which every room uses: types, recipes, registries, files, units, console."""
