"""One page that holds a whole report: tables, figures and records in a single HTML file without network."""
