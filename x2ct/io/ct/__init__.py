"""CT volumes: `volume` has the type and picks a format by the file's ending, with a module for each format."""
