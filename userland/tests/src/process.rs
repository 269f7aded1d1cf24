
cases![process:];
