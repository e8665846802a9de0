"""Side-by-side measurements, each with a table and a figure: orders, parallel sampling, the demo."""
