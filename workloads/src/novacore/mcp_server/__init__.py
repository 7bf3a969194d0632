"""mcp-server: the platform's memory, tasks and progress for editors, by Model Context Protocol and by plain REST."""
