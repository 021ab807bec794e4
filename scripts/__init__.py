"""What is run by hand and by CI; a package so that tests can run it too."""
