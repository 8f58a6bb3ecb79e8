//! Encoding of PTR records of instances (RFC 6763 §4.1), and of SVCB and HTTPS records (RFC 9460 §2.2).

use std::ops::Range;

use super::{HostIndex, MAX_POINTER, SRV_FIELDS, Section, Service, Writer, Zone, rtype};
use crate::dns::{
    answer::{Group, Owner},
    zone::service::{bindings::Binding, dns_sd::ServiceType},
};

/// Length of SvcPriority in octets (RFC 9460 §2.2).
pub(super) const SVC_PRIORITY: usize = 2;

impl Writer<'_, '_> {
    /// Writes the PTR record of an instance and returns the range of its RDATA.
    pub(super) fn instance_pointer(
        &mut self,
        group: &Group<'_>,
        service: &Service,
        kind: ServiceType<'_>,
        host: HostIndex,
    ) -> Range<usize> {
        let zone = group.zone;
        let owner = (group.owner, self.written(group.owner, zone));
        self.head(owner, zone, rtype::PTR, group.data.ttl(), 0);
        let start = self.out.len();
        put_label(service.dns_sd_label(host), self.out);
        match self.origin_at(zone) {
            // The question's name is the type, or a subtype, which ends in it.
            Some(origin) if group.owner == Owner::Question => self.pointer(origin - service.type_len(kind)),
            _ => {
                service.push_type(kind, self.out);
                self.origin(zone);
            }
        }
        self.end_rdata(start)
    }

    /// Writes an SVCB or HTTPS record and returns the range of its RDATA. The target is the owner itself without `target`.
    pub(super) fn binding(&mut self, group: &Group<'_>, binding: &Binding, target: Option<&[u8]>) -> Range<usize> {
        let zone = group.zone;
        let owner = (group.owner, self.written(group.owner, zone));
        self.head(owner, zone, group.data.rtype(), group.data.ttl(), 0);
        let start = self.out.len();
        self.out.extend_from_slice(&binding.priority.to_be_bytes());
        // TargetName is never compressed (RFC 9460 §2.2).
        match target {
            Some(labels) => {
                self.out.extend_from_slice(labels);
                self.out.extend_from_slice(zone.origin.wire());
            }
            None => self.out.push(0),
        }
        self.out.extend_from_slice(&binding.params);
        self.end_rdata(start)
    }

    /// Writes SRV, TXT and addresses of the instances of PTR records to the additional section, as far as they fit (RFC 6763
    /// §12.1). The name of an instance is written at the offset beside it.
    pub(super) fn advertised(
        &mut self,
        service: &Service,
        kind: ServiceType<'_>,
        zone: &Zone,
        targets: &[(HostIndex, usize)],
    ) {
        let mut name = Vec::new();
        for &(host, at) in targets {
            let written = Some(at).filter(|at| *at <= MAX_POINTER);
            if written.is_none() {
                name.clear();
                put_label(service.dns_sd_label(host), &mut name);
                service.push_type(kind, &mut name);
            }
            let ttl = service.host_ttl(host);
            let mark = self.out.len();
            let srv = service.srv_parts(host);
            let owner = Owner::Below(&name);
            self.head((owner, written), zone, rtype::SRV, ttl, srv.len() + zone.origin.wire().len());
            let start = self.out.len();
            self.out.extend_from_slice(srv);
            if let Some(port) = kind.port_of(host) {
                self.out[start + 4..start + SRV_FIELDS].copy_from_slice(&port.to_be_bytes());
            }
            self.out.extend_from_slice(zone.origin.wire());
            let end = self.out.len();
            let txt = service.dns_sd_txt(host);
            self.head((owner, written), zone, rtype::TXT, ttl, txt.len());
            self.out.extend_from_slice(txt);
            let end_of_txt = self.out.len();
            let counts = self.counts;
            self.counts[Section::Additional as usize] += 2;
            let owner = written.unwrap_or(mark);
            let fits = self.out.len() <= self.end
                && self.sign_record(zone, owner, (rtype::SRV, ttl), start..end)
                && self.sign_record(zone, owner, (rtype::TXT, ttl), end_of_txt - txt.len()..end_of_txt);
            if !fits {
                self.counts = counts;
                return self.out.truncate(mark);
            }
            if !self.addresses(&super::target_of(service, host), start + SRV_FIELDS, zone) {
                return;
            }
        }
    }

    /// Sets RDLENGTH of the record whose RDATA begins at `start`, and returns the range of the RDATA.
    pub(super) fn end_rdata(&mut self, start: usize) -> Range<usize> {
        let len = (self.out.len() - start) as u16;
        self.out[start - 2..start].copy_from_slice(&len.to_be_bytes());
        start..self.out.len()
    }
}

fn put_label(label: &[u8], out: &mut Vec<u8>) {
    out.push(label.len() as u8);
    out.extend_from_slice(label);
}
