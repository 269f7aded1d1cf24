//! Builds device trees for tests.

pub(crate) struct Builder {
    structs: Vec<u8>,
    strings: Vec<u8>,
    reservations: Vec<u8>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { structs: Vec::new(), strings: Vec::new(), reservations: Vec::new() }
    }

    fn word(&mut self, w: u32) {
        self.structs.extend_from_slice(&w.to_be_bytes());
    }

    fn pad(&mut self) {
        while self.structs.len() % 4 != 0 {
            self.structs.push(0);
        }
    }

    pub(crate) fn reserve(mut self, address: u64, size: u64) -> Self {
        self.reservations.extend_from_slice(&address.to_be_bytes());
        self.reservations.extend_from_slice(&size.to_be_bytes());
        self
    }

    pub(crate) fn begin(mut self, name: &str) -> Self {
        self.word(1);
        self.structs.extend_from_slice(name.as_bytes());
        self.structs.push(0);
        self.pad();
        self
    }

    pub(crate) fn end(mut self) -> Self {
        self.word(2);
        self
    }

    pub(crate) fn nop(mut self) -> Self {
        self.word(4);
        self
    }

    pub(crate) fn prop(mut self, name: &str, value: &[u8]) -> Self {
        let wanted: Vec<u8> = name.bytes().chain([0]).collect();
        let offset = self.strings.windows(wanted.len()).position(|w| w == wanted).unwrap_or_else(|| {
            self.strings.extend_from_slice(&wanted);
            self.strings.len() - wanted.len()
        });
        self.word(3);
        self.word(value.len() as u32);
        self.word(offset as u32);
        self.structs.extend_from_slice(value);
        self.pad();
        self
    }

    pub(crate) fn u32(self, name: &str, value: u32) -> Self {
        self.cells(name, &[value])
    }

    pub(crate) fn cells(self, name: &str, cells: &[u32]) -> Self {
        let bytes: Vec<u8> = cells.iter().flat_map(|c| c.to_be_bytes()).collect();
        self.prop(name, &bytes)
    }

    /// One string, or several joined by NUL.
    pub(crate) fn str(self, name: &str, value: &str) -> Self {
        let bytes: Vec<u8> = value.bytes().chain([0]).collect();
        self.prop(name, &bytes)
    }

    pub(crate) fn flag(self, name: &str) -> Self {
        self.prop(name, &[])
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.word(9);
        self.reservations.extend_from_slice(&[0; 16]);
        let reservations_at = 40;
        let structs_at = reservations_at + self.reservations.len();
        let strings_at = structs_at + self.structs.len();
        let total = strings_at + self.strings.len();
        let header = [
            0xd00d_feed,
            total as u32,
            structs_at as u32,
            strings_at as u32,
            reservations_at as u32,
            17,
            16,
            0,
            self.strings.len() as u32,
            self.structs.len() as u32,
        ];
        let mut out: Vec<u8> = header.iter().flat_map(|w| w.to_be_bytes()).collect();
        out.extend(self.reservations);
        out.extend(self.structs);
        out.extend(self.strings);
        out
    }
}

/// A tree in the style of QEMU's virt board: PSCI, GICv3, one bank.
pub(crate) fn virt() -> Vec<u8> {
    let mut b = Builder::new()
        .begin("")
        .str("model", "linux,dummy-virt")
        .str("compatible", "linux,dummy-virt")
        .u32("interrupt-parent", 0x8005)
        .u32("#address-cells", 2)
        .u32("#size-cells", 2)
        .begin("psci")
        .str("compatible", "arm,psci-1.0\0arm,psci-0.2\0arm,psci")
        .str("method", "hvc")
        .end()
        .begin("memory@40000000")
        .str("device_type", "memory")
        .cells("reg", &[0, 0x4000_0000, 0, 0x2000_0000])
        .end()
        .begin("timer")
        .str("compatible", "arm,armv8-timer\0arm,armv7-timer")
        .cells("interrupts", &[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4])
        .end()
        .begin("intc@8000000")
        .str("compatible", "arm,gic-v3")
        .u32("phandle", 0x8005)
        .flag("interrupt-controller")
        .u32("#interrupt-cells", 3)
        .u32("#address-cells", 2)
        .u32("#size-cells", 2)
        .u32("#redistributor-regions", 1)
        .cells("reg", &[0, 0x0800_0000, 0, 0x1_0000, 0, 0x080a_0000, 0, 0xf6_0000])
        .flag("ranges")
        .end()
        .begin("pl011@9000000")
        .str("compatible", "arm,pl011\0arm,primecell")
        .cells("reg", &[0, 0x0900_0000, 0, 0x1000])
        .cells("interrupts", &[0, 1, 4])
        .end()
        .begin("aliases")
        .str("serial0", "/pl011@9000000")
        .end()
        .begin("cpus")
        .u32("#address-cells", 1)
        .u32("#size-cells", 0);
    for cpu in 0..4u32 {
        b = b
            .begin(&format!("cpu@{cpu}"))
            .str("device_type", "cpu")
            .str("compatible", "arm,cortex-a72")
            .str("enable-method", "psci")
            .u32("reg", cpu)
            .end();
    }
    b.end()
        .begin("chosen")
        .prop("kaslr-seed", &0x0123_4567_89ab_cdef_u64.to_be_bytes())
        .prop("rng-seed", &[7; 32])
        .str("stdout-path", "/pl011@9000000")
        .str("bootargs", "console=ttyAMA0 quiet")
        .cells("linux,initrd-start", &[0, 0x4800_0000])
        .cells("linux,initrd-end", &[0, 0x4810_0000])
        .end()
        .end()
        .finish()
}

/// A tree in the style of a Raspberry Pi 4's: spin-table, GIC-400 behind `ranges`, banks of
/// one-word addresses, NOPs where a loader removed nodes.
pub(crate) fn board() -> Vec<u8> {
    let mut b = Builder::new()
        .reserve(0, 0x1000)
        .begin("")
        .str("model", "Raspberry Pi 4 Model B")
        .str("compatible", "raspberrypi,4-model-b\0brcm,bcm2711")
        .u32("#address-cells", 2)
        .u32("#size-cells", 1)
        .u32("interrupt-parent", 1)
        .begin("aliases")
        .str("serial0", "/soc/serial@7e215040")
        .str("serial1", "/soc/serial@7e201000")
        .end()
        .nop()
        .begin("chosen")
        .str("stdout-path", "serial1:115200n8")
        .u32("linux,initrd-start", 0x0800_0000)
        .u32("linux,initrd-end", 0x0810_0000)
        .end()
        .nop()
        .begin("reserved-memory")
        .u32("#address-cells", 2)
        .u32("#size-cells", 1)
        .flag("ranges")
        .begin("linux,cma")
        .str("compatible", "shared-dma-pool")
        .u32("size", 0x0400_0000)
        .end()
        .begin("nvram@0")
        .cells("reg", &[0, 0x3b40_0000, 0x1000])
        .flag("no-map")
        .end()
        .begin("off@1000")
        .cells("reg", &[0, 0x1000, 0x1000])
        .str("status", "disabled")
        .end()
        .end()
        .begin("soc")
        .str("compatible", "simple-bus")
        .u32("#address-cells", 1)
        .u32("#size-cells", 1)
        .cells(
            "ranges",
            &[
                0x7e00_0000, 0, 0xfe00_0000, 0x0180_0000, //
                0x7c00_0000, 0, 0xfc00_0000, 0x0200_0000, //
                0x4000_0000, 0, 0xff80_0000, 0x0080_0000,
            ],
        )
        .begin("interrupt-controller@40041000")
        .str("compatible", "arm,gic-400")
        .u32("phandle", 1)
        .flag("interrupt-controller")
        .u32("#interrupt-cells", 3)
        .cells("reg", &[0x4004_1000, 0x1000, 0x4004_2000, 0x2000, 0x4004_4000, 0x2000, 0x4004_6000, 0x2000])
        .end()
        .begin("serial@7e201000")
        .str("compatible", "arm,pl011\0arm,primecell")
        .cells("reg", &[0x7e20_1000, 0x200])
        .cells("interrupts", &[0, 121, 4])
        .begin("bluetooth")
        .str("compatible", "brcm,bcm43438-bt")
        .end()
        .end()
        .begin("serial@7e201400")
        .str("compatible", "arm,pl011\0arm,primecell")
        .cells("reg", &[0x7e20_1400, 0x200])
        .cells("interrupts-extended", &[1, 0, 121, 4])
        .str("status", "disabled")
        .end()
        .end()
        .nop()
        .begin("cpus")
        .u32("#address-cells", 1)
        .u32("#size-cells", 0);
    for cpu in 0..4u32 {
        b = b
            .begin(&format!("cpu@{cpu}"))
            .str("device_type", "cpu")
            .str("enable-method", "spin-table")
            .cells("cpu-release-addr", &[0, 0xd8 + cpu * 8])
            .u32("reg", cpu)
            .end();
    }
    b.end()
        .begin("memory@0")
        .str("device_type", "memory")
        .cells("reg", &[0, 0, 0x3c00_0000, 0, 0x4000_0000, 0x4000_0000])
        .end()
        .nop()
        .end()
        .nop()
        .finish()
}
