#[test] fn empty(){}
