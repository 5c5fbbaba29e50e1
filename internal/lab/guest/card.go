package guest

import (
	"errors"
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ifreq is struct ifreq of netdevice(7), with the union as bytes.
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data [24]byte
}

// up sets a card's IPv4 address, if any, and switches the card on.
func up(name string, address *net.IPNet) (err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("configure %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	control := func(request uintptr, fill func(*ifreq)) error {
		var r ifreq
		copy(r.name[:unix.IFNAMSIZ-1], name)
		fill(&r)
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&r))); e != 0 {
			return fmt.Errorf("configure %s: %w", name, e)
		}
		return nil
	}
	ipv4 := func(ip net.IP) func(*ifreq) {
		return func(r *ifreq) {
			*(*uint16)(unsafe.Pointer(&r.data[0])) = unix.AF_INET
			copy(r.data[4:8], ip.To4())
		}
	}
	if address != nil {
		if address.IP.To4() == nil {
			return fmt.Errorf("configure %s: %s is no IPv4 address", name, address.IP)
		}
		if err := control(unix.SIOCSIFADDR, ipv4(address.IP)); err != nil {
			return err
		}
		if err := control(unix.SIOCSIFNETMASK, ipv4(net.IP(address.Mask))); err != nil {
			return err
		}
	}
	return control(unix.SIOCSIFFLAGS, func(r *ifreq) {
		*(*uint16)(unsafe.Pointer(&r.data[0])) = unix.IFF_UP | unix.IFF_RUNNING
	})
}
