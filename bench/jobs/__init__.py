"""One module for each job: ``rows(inputs, runs)`` gives its rows of the table."""
