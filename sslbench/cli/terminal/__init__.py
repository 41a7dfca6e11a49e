"""How the command line draws its rows: for people, at any width; a file per drawing."""
