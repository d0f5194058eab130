# SPDX-License-Identifier: GPL-2.0-only
# Every operation of Ruby's Dalli, binary and meta.

require 'dalli'

$checks = 0
def eq(got, want)
  $checks += 1
  raise "got #{got.inspect}, not #{want.inspect}" unless got == want
end

%i[binary meta].each do |protocol|
  run = "c#{Process.pid}:#{protocol}"
  c = Dalli::Client.new(ARGV[0], protocol: protocol, namespace: run, socket_timeout: 20)
  c.alive!
  eq(!c.set('a', '1').nil?, true)
  eq(c.get('a'), '1')
  eq(c.get('none'), nil)
  eq(c.add('a', '2'), false)
  eq(!!c.add('b', '2'), true)
  eq(!!c.replace('b', '3'), true)
  eq(!!c.replace('none', '3'), false)
  c.set('s', 'b', 0, raw: true)
  eq(!!c.append('s', 'c'), true)
  eq(!!c.prepend('s', 'a'), true)
  eq(c.get('s', raw: true), 'abc')
  eq(c.incr('n', 1, 100, 10), 10)
  eq(c.incr('n', 5), 15)
  eq(c.decr('n', 6), 9)
  eq(c.decr('n', 60), 0)
  eq(c.incr('none'), nil)
  eq(c.fetch('f') { 'made' }, 'made')
  eq(c.fetch('f') { 'again' }, 'made')
  eq(!!c.cas('a') { |v| v + '2' }, true)
  eq(c.get('a'), '12')
  value, cas = c.get_cas('a')
  eq(value, '12')
  eq(!!c.set_cas('a', '13', cas), true)
  eq(!!c.set_cas('a', '14', cas), false)
  eq(!!c.replace_cas('a', '15', c.get_cas('a')[1]), true)
  eq(!!c.delete_cas('a', 1), false)
  many = (0...100).to_h { |i| ["m#{i}", i] }
  c.quiet { many.each { |k, v| c.set(k, v, 100) } }
  eq(c.get_multi(many.keys + ['none']), many)
  eq(c.get_multi_cas('m1', 'm2').transform_values(&:first), { 'm1' => 1, 'm2' => 2 })
  eq(!!c.touch('m1', 100), true)
  eq(c.gat('m1', 100), 1)
  eq(!!c.delete('m1'), true)
  eq(!!c.delete('m1'), false)
  [[1, 2], { 'a' => nil }, 'x' * 900_000, :symbol, 2.5].each do |v|
    c.set('o', v)
    eq(c.get('o'), v)
  end
  c.set('z', 'x' * 500_000, 0, compress: true)
  eq(c.get('z'), 'x' * 500_000)
  c.set("odd \u00e4", 'key')
  eq(c.get("odd \u00e4"), 'key')
  c.set('short', '1', 1)
  sleep 2.1
  eq(c.get('short'), nil)
  eq(c.stats.values.first.key?('curr_items'), true)
  c.stats(:items)
  c.stats(:slabs)
  eq(c.version.values.first.nil?, false)
  c.reset_stats
  c.flush
  c.close
end
puts "dalli: #{$checks} checks passed"
