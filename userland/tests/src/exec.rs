use crate::check::*;
cases![exec:];
pub fn helper(_: &str) -> ! { std::process::exit(0) }
