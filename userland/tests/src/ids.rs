
cases![ids:];
