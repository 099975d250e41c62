#![no_main]
memwatch_fuzz::target!(kernel);
