"""Images: which a deployment needs, what each is built from, whether it is there, and how it is made.

docs/architecture.md draws how the modules follow each other; `stages` is where the rest of the package enters.
"""
