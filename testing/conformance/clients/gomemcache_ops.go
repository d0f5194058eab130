// SPDX-License-Identifier: GPL-2.0-only
// Every operation of the Go client gomemcache.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

var checks int

func ok(err error) {
	checks++
	if err != nil {
		panic(err)
	}
}

func is(err, want error) {
	checks++
	if !errors.Is(err, want) {
		panic(fmt.Sprintf("got %v, not %v", err, want))
	}
}

func eq(got, want []byte) {
	checks++
	if !bytes.Equal(got, want) {
		panic(fmt.Sprintf("got %q, not %q", got, want))
	}
}

func main() {
	c := memcache.New(os.Args[1])
	c.Timeout = 20 * time.Second
	k := func(name string) string { return fmt.Sprintf("c%d:%s", os.Getpid(), name) }
	ok(c.Ping())
	ok(c.Set(&memcache.Item{Key: k("a"), Value: []byte("1"), Flags: 123}))
	it, err := c.Get(k("a"))
	ok(err)
	eq(it.Value, []byte("1"))
	if it.Flags != 123 {
		panic("flags")
	}
	_, err = c.Get(k("none"))
	is(err, memcache.ErrCacheMiss)
	is(c.Add(&memcache.Item{Key: k("a"), Value: []byte("2")}), memcache.ErrNotStored)
	ok(c.Add(&memcache.Item{Key: k("b"), Value: []byte("2")}))
	ok(c.Replace(&memcache.Item{Key: k("b"), Value: []byte("3")}))
	is(c.Replace(&memcache.Item{Key: k("none"), Value: []byte("3")}), memcache.ErrNotStored)
	ok(c.Append(&memcache.Item{Key: k("b"), Value: []byte("4")}))
	ok(c.Prepend(&memcache.Item{Key: k("b"), Value: []byte("2")}))
	it, err = c.Get(k("b"))
	ok(err)
	eq(it.Value, []byte("234"))
	it, err = c.Get(k("a"))
	ok(err)
	it.Value = []byte("5")
	ok(c.CompareAndSwap(it))
	it.Value = []byte("6")
	is(c.CompareAndSwap(it), memcache.ErrCASConflict)
	n, err := c.Increment(k("a"), 8)
	ok(err)
	if n != 13 {
		panic(n)
	}
	n, err = c.Decrement(k("a"), 49)
	ok(err)
	if n != 0 {
		panic(n)
	}
	_, err = c.Increment(k("none"), 1)
	is(err, memcache.ErrCacheMiss)
	keys := []string{k("none")}
	for i := 0; i < 500; i++ {
		key := k(fmt.Sprint("m", i))
		keys = append(keys, key)
		ok(c.Set(&memcache.Item{Key: key, Value: []byte(key)}))
	}
	items, err := c.GetMulti(keys)
	ok(err)
	if len(items) != 500 {
		panic(len(items))
	}
	for key, it := range items {
		eq(it.Value, []byte(key))
	}
	ok(c.Touch(k("a"), 100))
	is(c.Touch(k("none"), 100), memcache.ErrCacheMiss)
	ok(c.Delete(k("a")))
	is(c.Delete(k("a")), memcache.ErrCacheMiss)
	big := bytes.Repeat([]byte("x"), 900000)
	ok(c.Set(&memcache.Item{Key: k("big"), Value: big}))
	it, err = c.Get(k("big"))
	ok(err)
	eq(it.Value, big)
	is(c.Set(&memcache.Item{Key: "a b", Value: big}), memcache.ErrMalformedKey)
	ok(c.Set(&memcache.Item{Key: k("short"), Value: []byte("1"), Expiration: 1}))
	time.Sleep(2100 * time.Millisecond)
	_, err = c.Get(k("short"))
	is(err, memcache.ErrCacheMiss)
	ok(c.DeleteAll())
	ok(c.FlushAll())
	fmt.Printf("gomemcache: %d checks passed\n", checks)
}
