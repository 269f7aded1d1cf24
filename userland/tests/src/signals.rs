
cases![signals:];
