#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    (hoidla_hostile::by_name("boot_entry").run)(bytes);
});
