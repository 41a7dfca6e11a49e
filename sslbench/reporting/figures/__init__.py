"""Figures of a report: numbers first (`Plate`), drawn by matplotlib, which is imported only where one is drawn."""
