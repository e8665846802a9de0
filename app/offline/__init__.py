"""The lessons as pages that need no server: `toydiff site` writes them."""
