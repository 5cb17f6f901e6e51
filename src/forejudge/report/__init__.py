"""Tables, plots and the HTML page of a finished evaluation. Plots need matplotlib (the extra `plots`)."""
