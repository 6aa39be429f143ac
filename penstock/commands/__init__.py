"""The commands of `penstock`, one module each with `register(app)`.

At import a module loads only typer, rich and the standard library; all else inside its functions.
"""
