"""The Model Context Protocol, both ways, through its official SDK (`pip install 'tusi[mcp]'`)."""
