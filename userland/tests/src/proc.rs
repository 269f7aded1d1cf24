
cases![proc:];
