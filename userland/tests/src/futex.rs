
cases![futex:];
