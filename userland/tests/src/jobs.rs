
cases![jobs:];
