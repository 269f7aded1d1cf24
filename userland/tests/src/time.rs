
cases![time:];
