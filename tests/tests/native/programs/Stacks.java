import java.io.RandomAccessFile;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.Arrays;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.function.IntFunction;

/**
 * Touches a new page of memory in each of many different stacks, and says what Java itself knows of each: for a test that compares.
 *
 * `Stacks TOUCHES WARM`: walks WARM times for nothing, waits for a line on its input, walks once more, touches, prints one JSON object {"stack": pages}, where a stack is what
 * memtrail should call the methods, outermost first, joined by " > "; then waits for the end of its input.
 * Of the frames that Java hides it knows with -XX:+ShowHiddenFrames alone.
 */
public class Stacks {
    static final int PAGE = 4096;
    static final int STACKS = 180;
    static final Map<String, Integer> TOUCHED = new TreeMap<>();
    static volatile boolean says = false;

    static String name(StackTraceElement frame) {
        String type = frame.getClassName();
        int lambda = type.indexOf("$$Lambda");
        if (lambda >= 0) type = type.substring(0, lambda + "$$Lambda".length());
        int hidden = type.indexOf('/');
        if (hidden >= 0) type = type.substring(0, hidden);
        // JDK 8 says a number of bytecode behind this in the place of a line.
        boolean unknown = frame.getFileName() == null || frame.getFileName().equals("<Unknown>");
        String file = unknown ? "Unknown Source" : frame.getFileName();
        String line = frame.getLineNumber() < 0 || frame.getLineNumber() >= 1000000 ? "?" : Integer.toString(frame.getLineNumber());
        return type + "." + frame.getMethodName() + " (" + file + ":" + line + ")";
    }

    static String stack() {
        StringBuilder text = new StringBuilder();
        StackTraceElement[] frames = new Throwable().getStackTrace();
        // But for this method and its caller.
        for (int at = frames.length - 1; at >= 2; at--) text.append(name(frames[at])).append(" > ");
        return text.append("Stacks.touch").toString();
    }

    static void touch(MappedByteBuffer memory, int at) {
        if (says) {
            String stack = stack();
            synchronized (TOUCHED) { TOUCHED.merge(stack, 1, Integer::sum); }
        }
        memory.put(at, (byte) 1);
    }

    interface Way { int go(int depth); }

    /** Ways to come from one frame to the next. */
    static class Walker {
        final MappedByteBuffer memory;
        Random random = new Random();
        int at = 0;
        final Way[] ways = {this::byCall, this::byLambda, this::byException, this::byFinally, this::bySort, this::byStream, this::byLock,
            this::byConstructor, this::byReflection, this::größe, this::byGeneric};

        Walker(MappedByteBuffer memory) { this.memory = memory; }

        int walk(int depth) {
            if (depth == 0) {
                touch(memory, at);
                at += PAGE;
                return 0;
            }
            return ways[random.nextInt(ways.length)].go(depth - 1);
        }

        int byCall(int depth) {
            return walk(
                depth);
        }

        int byLambda(int depth) {
            IntFunction<Integer> walk = deeper -> walk(deeper);
            return walk.apply(depth);
        }

        int byException(int depth) {
            try {
                throw new IllegalStateException();
            } catch (IllegalStateException error) {
                return walk(depth);
            }
        }

        int byFinally(int depth) {
            int found = 1;
            try {
                found = depth;
            } finally {
                found = walk(depth);
            }
            return found;
        }

        int bySort(int depth) {
            Integer[] numbers = {2, 1};
            boolean[] done = {false};
            Arrays.sort(numbers, (a, b) -> {
                if (!done[0]) {
                    done[0] = true;
                    walk(depth);
                }
                return a - b;
            });
            return numbers[0];
        }

        int byStream(int depth) {
            return Arrays.asList(depth).stream().map(this::walk).reduce(0, Integer::sum);
        }

        synchronized int byLock(int depth) {
            synchronized (random) { return walk(depth); }
        }

        class Inner {
            final int found;

            Inner(int depth) { found = walk(depth); }
        }

        int byConstructor(int depth) { return new Inner(depth).found; }

        int byReflection(int depth) {
            try {
                return (Integer) Walker.class.getDeclaredMethod("walk", int.class).invoke(this, depth);
            } catch (ReflectiveOperationException error) {
                throw new IllegalStateException(error);
            }
        }

        int größe(int depth) { return walk(depth) + 1; }

        <T extends Comparable<T>> int byGeneric(T one) { return ((Comparable<T>) other -> walk((Integer) one)).compareTo(one); }
    }

    static void work(MappedByteBuffer memory, int touches) {
        Walker walker = new Walker(memory);
        for (int number = 0; number < touches; number++) {
            // As many different ones as the table of stacks has room for.
            walker.random = new Random(number % STACKS);
            walker.walk(1 + number % 9);
        }
    }

    static void warm(int rounds) throws Exception {
        says = true;
        work(memory(STACKS), STACKS);
        says = false;
        TOUCHED.clear();
        for (int round = 0; round < rounds; round++) work(memory(STACKS), STACKS);
        says = true;
    }

    static MappedByteBuffer memory(int pages) throws Exception {
        Path path = Files.createTempFile(Paths.get("/dev/shm"), "stacks", "");
        try (RandomAccessFile file = new RandomAccessFile(path.toFile(), "rw")) {
            return file.getChannel().map(FileChannel.MapMode.READ_WRITE, 0, (long) pages * PAGE);
        } finally {
            Files.delete(path);
        }
    }

    public static void main(String[] args) throws Exception {
        int touches = Integer.parseInt(args[0]), warm = Integer.parseInt(args[1]), threads = 4;
        // What the walks need besides is there before, and compiled where that is wanted.
        warm(warm);
        MappedByteBuffer[] memories = new MappedByteBuffer[threads];
        for (int at = 0; at < threads; at++) memories[at] = memory(touches / threads);
        System.out.println("ready");
        System.in.read();
        // Who has just begun to look learns of this JVM.
        warm(1);
        Thread.sleep(1000);
        Thread[] others = new Thread[threads - 1];
        for (int at = 0; at < others.length; at++) {
            MappedByteBuffer memory = memories[at];
            others[at] = new Thread(() -> work(memory, touches / threads));
            others[at].start();
        }
        work(memories[threads - 1], touches / threads);
        for (Thread other : others) other.join();
        StringBuilder said = new StringBuilder("{");
        TOUCHED.forEach((stack, pages) -> said.append(said.length() == 1 ? "" : ",").append('"').append(stack).append("\":").append(pages));
        System.out.write((said.append("}\n").toString()).getBytes("UTF-8"));
        System.out.flush();
        while (System.in.read() >= 0) { }
    }
}
