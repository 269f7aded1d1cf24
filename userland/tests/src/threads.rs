
cases![threads:];
