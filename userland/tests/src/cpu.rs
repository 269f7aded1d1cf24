
cases![cpu:];
