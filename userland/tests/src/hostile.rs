
cases![hostile:];
