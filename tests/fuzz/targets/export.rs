#![no_main]
memwatch_fuzz::target!(export);
