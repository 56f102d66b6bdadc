/* Opens no socket, does nothing: what preloading costs such a program is its start and its end. */
int main(void)
{
    return 0;
}
