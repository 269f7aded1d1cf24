
cases![system:];
