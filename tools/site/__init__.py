"""What the documentation site needs beside its pages: a hook of mkdocs."""
